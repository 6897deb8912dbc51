"""Frame sources: RTSP, HTTP, video files, V4L2 devices, image folders, and simulated scenes."""
