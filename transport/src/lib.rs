//! One Stream and Listener over vsock, hybrid vsock, unix and tcp.
