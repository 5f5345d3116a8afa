//! The API of pgrail: the types of every kind, their validation rules, condition and reason constants.
