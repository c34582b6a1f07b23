"""The parts of etc/package, one for each kind of package."""
