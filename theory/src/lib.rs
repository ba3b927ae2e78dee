//! The linear meta-learning problem of PEFT-ML: tasks, losses, derivatives, predictions, certificates.
