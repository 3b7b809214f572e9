use serde_json::{Value, json};

use super::*;
use crate::fixtures::MemoryFiles;

fn bert() -> Value {
    json!({"model_type": "bert", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4,
           "vocab_size": 100, "max_position_embeddings": 80, "type_vocab_size": 2})
}

fn of(model_type: &str) -> Value {
    let mut config = bert();
    config["model_type"] = json!(model_type);
    config
}

/// As nomic-ai publishes it.
fn nomic() -> Value {
    json!({"model_type": "nomic_bert", "n_embd": 64, "n_inner": 96, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 8192,
           "max_trained_positions": 2048, "type_vocab_size": 2, "layer_norm_epsilon": 1e-12, "activation_function": "swiglu",
           "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_scaling_factor": 2, "qkv_proj_bias": false, "num_experts": 0})
}

fn read(config: &Value) -> Result<Config, String> {
    let files = MemoryFiles::default().with("config.json", config.to_string());
    let fields = Fields::read(&files, "config.json").unwrap();
    let family = Family::of(fields.text("model_type").unwrap().unwrap()).unwrap();
    Config::read(family, &fields).map_err(|error| error.to_string())
}

#[test]
fn positions_that_padding_takes_are_none_to_a_token() {
    assert_eq!(read(&bert()).unwrap().context, 80);
    let roberta = read(&of("xlm-roberta")).unwrap();
    assert_eq!(
        (roberta.positions, roberta.padding, roberta.context),
        (Some(80), 1, 78)
    );
    // Rotation would change with the length of an input beyond what the model was trained on.
    let nomic = read(&nomic()).unwrap();
    assert_eq!((nomic.positions, nomic.context), (None, 2048));
}

#[test]
fn modern_berts_layers_follow_the_list_or_the_pattern() {
    let windows = |config: &Value| -> Vec<Option<usize>> {
        read(config)
            .unwrap()
            .layers
            .iter()
            .map(|layer| layer.window)
            .collect()
    };
    let (far, near) = (None, Some(64));
    assert_eq!(
        windows(&of("modernbert")),
        [far, near, near, far, near, near]
    );
    let mut config = of("modernbert");
    config["local_attention"] = json!(10);
    config["global_attn_every_n_layers"] = json!(2);
    assert_eq!(
        windows(&config),
        [None, Some(5), None, Some(5), None, Some(5)]
    );
    config["num_hidden_layers"] = json!(2);
    config["layer_types"] = json!(["sliding_attention", "full_attention"]);
    assert_eq!(windows(&config), [Some(5), None]);
}

#[test]
fn rotations_are_found_where_newer_and_older_files_have_them() {
    let thetas = |config: &Value| -> Vec<f32> {
        read(config)
            .unwrap()
            .rotations
            .iter()
            .map(|rotation| rotation.theta)
            .collect()
    };
    assert_eq!(thetas(&of("modernbert")), [160_000.0, 10_000.0]);
    let mut older = of("modernbert");
    older["global_rope_theta"] = json!(5.0);
    older["local_rope_theta"] = json!(6.0);
    assert_eq!(thetas(&older), [5.0, 6.0]);
    let mut newer = of("modernbert");
    newer["rope_parameters"] =
        json!({"full_attention": {"rope_type": "default", "rope_theta": 7.0}});
    assert_eq!(thetas(&newer), [7.0, 10_000.0]);
    assert_eq!(thetas(&nomic()), [1000.0]);
    let mut newer = of("nomic_bert");
    newer["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 8.0});
    assert_eq!(thetas(&newer), [8.0]);
    assert!(thetas(&bert()).is_empty());
}

#[test]
fn settings_that_would_change_the_result_are_refused_by_name() {
    let cases = [
        (bert(), "is_decoder", json!(true)),
        (bert(), "add_cross_attention", json!(true)),
        (
            bert(),
            "position_embedding_type",
            json!("relative_key_query"),
        ),
        (bert(), "quantization_config", json!({"bits": 4})),
        (bert(), "pruned_heads", json!({"0": [1]})),
        (bert(), "rope_scaling", json!({"type": "linear"})),
        (bert(), "hidden_act", json!("gelu_fast")),
        (bert(), "head_dim", json!(32)),
        (bert(), "layer_norm_eps", json!(0.0)),
        (of("roberta"), "max_position_embeddings", json!(2)),
        (of("roberta"), "pad_token_id", json!(100)),
        (of("distilbert"), "activation", json!("tanh")),
        (of("distilbert"), "num_attention_heads", json!(3)),
        (of("modernbert"), "hidden_activation", json!(1)),
        (
            of("modernbert"),
            "layer_types",
            json!(vec!["full_attention"; 5]),
        ),
        (
            of("modernbert"),
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
        ),
        (of("modernbert"), "global_attn_every_n_layers", json!(0)),
        (of("modernbert"), "num_attention_heads", json!(64)),
        (of("modernbert"), "norm_bias", json!("yes")),
        (nomic(), "activation_function", json!("gelu")),
        (nomic(), "qkv_proj_bias", json!(true)),
        (nomic(), "mlp_fc1_bias", json!(true)),
        (nomic(), "prenorm", json!(true)),
        (nomic(), "parallel_block", json!(true)),
        (nomic(), "use_rms_norm", json!(true)),
        (nomic(), "causal", json!(true)),
        (nomic(), "rotary_emb_interleaved", json!(true)),
        (nomic(), "rotary_emb_fraction", json!(0.5)),
        (nomic(), "rotary_emb_fraction", json!(0.0)),
        (nomic(), "rotary_emb_scale_base", json!(512)),
        (nomic(), "num_experts", json!(8)),
        (nomic(), "moe_every_n_layers", json!(2)),
        (nomic(), "n_head", json!(7)),
        (nomic(), "n_embd", json!(1u64 << 40)),
    ];
    for (mut config, field, value) in cases {
        read(&config).unwrap();
        config[field] = value;
        let error = read(&config).unwrap_err();
        assert!(
            error.starts_with(&format!("config.json: field {field}: ")),
            "{error}"
        );
    }
    for rope in ["yarn", "linear", "dynamic"] {
        let mut config = of("nomic_bert");
        config["rope_parameters"] = json!({"rope_type": rope});
        assert!(
            read(&config)
                .unwrap_err()
                .contains("rope_parameters.rope_type")
        );
        let mut config = of("modernbert");
        config["rope_parameters"] = json!({"sliding_attention": {"rope_type": rope}});
        assert!(
            read(&config)
                .unwrap_err()
                .contains("sliding_attention.rope_type")
        );
    }
}
