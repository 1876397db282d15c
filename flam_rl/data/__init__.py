"""Action-free video and labels: Minari datasets and folders of video files."""
