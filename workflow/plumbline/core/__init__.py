"""What every study shares. Imports no study."""
