"""Model in, smaller model out."""
