"""Videos in the archives that CVDF publishes: each is read once, from front to back, and gives its clips as it goes."""
