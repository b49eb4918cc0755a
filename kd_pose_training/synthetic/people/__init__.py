"""People with 133 keypoints: bodies, faces, hands, clothes, poses, places and labels."""
