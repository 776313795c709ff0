//! What holds of compiling whatever the topology: lookups are linear scans, order does not matter, slots stay.
