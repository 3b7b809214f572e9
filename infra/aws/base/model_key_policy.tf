locals {
  # Operations that put out a plaintext, or a copy of one under another key.
  opening = ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair", "kms:GenerateDataKeyPairWithoutPlaintext", "kms:GenerateDataKeyWithoutPlaintext"]

  # One statement per image: several values of one condition key are alternatives, each key for itself, so PCR0 of one image would
  # pass together with PCR2 of another.
  allow_images = [for index, image in var.images : {
    Sid       = "Image${index}"
    Effect    = "Allow"
    Principal = { AWS = aws_iam_role.host.arn }
    Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource  = "*"
    Condition = {
      StringEqualsIgnoreCase = {
        for register, value in image : "kms:RecipientAttestation:${upper(register)}" => value if value != null
      }
    }
  }]

  # Against what other policies or grants might allow. A negated operator is also true where the key is absent, that is without a
  # document, so each of the three alone refuses a bare Decrypt.
  deny_other_images = [for register in ["pcr0", "pcr1", "pcr2"] : {
    Sid       = "NothingElse${upper(register)}"
    Effect    = "Deny"
    Principal = { AWS = "*" }
    Action    = local.opening
    Resource  = "*"
    Condition = {
      StringNotEqualsIgnoreCase = {
        "kms:RecipientAttestation:${upper(register)}" = distinct([for image in var.images : image[register]])
      }
    }
  }]

  model_key_policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        # No kms:* for the account's root, as the default policy has it: it would hand the decision to IAM policies.
        Sid       = "Administer"
        Effect    = "Allow"
        Principal = { AWS = sort(var.key_administrators) }
        Action = [
          "kms:CancelKeyDeletion", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey", "kms:EnableKeyRotation",
          "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations",
          "kms:ListResourceTags", "kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias", "kms:PutKeyPolicy", "kms:RetireGrant",
          "kms:RevokeGrant", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
          "kms:UpdateKeyDescription",
        ]
        Resource = "*"
      },
      {
        Sid       = "Wrap"
        Effect    = "Allow"
        Principal = { AWS = sort(var.publishers) }
        Action    = ["kms:DescribeKey", "kms:Encrypt"]
        Resource  = "*"
      },
      {
        # A grant would carry no conditions on measurements; re-encryption would move a model key under another key.
        Sid       = "NoWayAround"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["kms:CreateGrant", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:ReplicateKey"]
        Resource  = "*"
      },
    ], local.allow_images, local.deny_other_images)
  })
}
