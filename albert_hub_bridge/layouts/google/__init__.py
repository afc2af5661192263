"""Google's original release."""
