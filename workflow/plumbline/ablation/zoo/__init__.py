"""Real LoRA adapters of a real, small diffusion model, trained offline on scikit-learn's handwritten digits."""
