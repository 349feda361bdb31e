"""GAN losses, gradient penalties, differentiable augmentation."""
