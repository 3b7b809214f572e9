# Wraps the keys of sealed models. Nobody gets a plaintext out of it except an enclave with accepted measurements: KMS encrypts
# the answer to the public key in the enclave's attestation document (`Recipient`), and the conditions below look at that document.
# https://docs.aws.amazon.com/kms/latest/developerguide/conditions-nitro-enclaves.html
resource "aws_kms_key" "model" {
  description             = "${var.name}: keys of sealed models, for attested enclaves only"
  enable_key_rotation     = true
  rotation_period_in_days = 365
  deletion_window_in_days = 30
  policy                  = local.model_key_policy

  lifecycle {
    prevent_destroy = true # with it, every model sealed under it is gone
  }
}

resource "aws_kms_alias" "model" {
  name          = "alias/${var.name}-model"
  target_key_id = aws_kms_key.model.key_id
}
