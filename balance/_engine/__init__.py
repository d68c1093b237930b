"""What all that balances shares and no reader calls: the checks of what is passed in."""
