"""What `gripwire doctor` looks at: one check a function, all of them in :mod:`gripwire.doctor.table`.

A check takes what is known of this place (:class:`gripwire.doctor.finding.Here`) and gives findings, each
with its remedy. What a check reads of the machine it reads below ``Here.root``, so that a test can show it
another machine; what is to be thought of it is a pure function beside.
"""
