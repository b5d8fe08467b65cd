"""Historic bugs, planted again, and the judges that must see them."""
