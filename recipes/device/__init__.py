"""What is done in fifteen minutes of one big GPU: `README.md` beside this file."""
