"""Parts of stand-alone models that several families share.

They travel with exported models, flat beside the family's own files (see :mod:`spaces.travelling_code`), so a file here
imports nothing of the project but its neighbours, and has a name that no file of a family has.
"""
