"""Preprocessing with Apache Beam: the only importer of apache_beam."""
