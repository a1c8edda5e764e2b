"""Chapter 3: pursuing low-dimensional distributions via denoising."""
