//! The repository itself: what it says of its own files is true.
