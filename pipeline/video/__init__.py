"""Moving pictures: videos and folders of frames, colored so that the colors hold still.

    frames ─> scenes (scenes.py) ─> key frames, about every twelfth: the cascade, told of what is carried (coloring.py)
           └> flow to the key frames on both sides (flow.py) ─> their colors, mixed along it (carrying.py) ─> all frames

Needs the extra `video`: PyAV, which reads and writes, and OpenCV, whose optical flow it is.
"""
