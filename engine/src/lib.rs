//! candle: model families, sampling, chat templates.
