"""Study `ablation`: what do a LoRA's weights say about what it was trained on?"""
