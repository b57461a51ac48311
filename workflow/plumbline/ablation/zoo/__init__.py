"""LoRA adapters of a small diffusion model, trained offline on scikit-learn's handwritten digits."""
