"""The certificate: its schema, and stating claims in it. It holds no verdict."""
