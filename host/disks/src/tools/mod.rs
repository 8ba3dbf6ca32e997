//! Making, describing, converting, resizing and checking images.
