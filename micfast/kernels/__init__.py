"""The compiled kernels, the reference they are held to, and the operators in front of both."""
