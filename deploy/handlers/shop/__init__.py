"""A shop that tells its ERP of new orders."""
