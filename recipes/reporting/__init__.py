"""What all reports are made of: tables, pages, pictures, and where numbers come from."""
