//! Bugs that only this tier can show: in what a client asks for, in how the SDK is set, in how an answer is decoded.
