"""YOLOv3: the network, its loss, what comes before and behind it, and how good it is.

The network and its loss follow J. Redmon and A. Farhadi, "YOLOv3: An Incremental Improvement"
(arXiv:1804.02767, 2018). A box is a row of xmin, ymin, xmax, ymax; what it is relative to, or that
it is in pixels, is said where it is taken.
"""
