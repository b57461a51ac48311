"""What the runtime is compared with: the same computation here, captured, and behind other systems' remote calls."""
