"""What an evaluation recorded: manifest, records, reading, data split, units."""
