//! YAML documents to validated objects.
