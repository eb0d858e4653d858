"""Take a binarized network from ONNX to a measured result on a device."""
