"""What can be searched: architectures as values, their cost by arithmetic, and the modules they build."""
