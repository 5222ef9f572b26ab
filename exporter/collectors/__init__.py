"""A file per subject: its query, a pure `parse`, and `collect()` that joins the two."""
