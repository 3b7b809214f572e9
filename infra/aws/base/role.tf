# What a host may do. Its ARN is what PCR3 measures (`cloister measure --role`): renaming it changes that register.
resource "aws_iam_role" "host" {
  name = "${var.name}-host"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_instance_profile" "host" {
  name = "${var.name}-host"
  role = aws_iam_role.host.name
}

resource "aws_iam_role_policy" "host" {
  #checkov:skip=CKV_AWS_355:Session Manager's channels have no ARN to name; AWS's own managed policy has the same star for them and for more.
  #checkov:skip=CKV_AWS_290:The same four actions: they open a channel of this very instance to Session Manager and write nothing else.
  name = "host"
  role = aws_iam_role.host.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadPackagesAndReleases"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = [for prefix in ["models", "releases"] : "arn:${local.partition}:s3:::${local.buckets.models}/${prefix}/*"]
      },
      {
        Sid       = "ListPackages"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = "arn:${local.partition}:s3:::${local.buckets.models}"
        Condition = { StringLike = { "s3:prefix" = "models/*" } }
      },
      {
        Sid      = "ReadEncryptedObjects"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = aws_kms_key.storage.arn
        Condition = {
          StringEquals = {
            "kms:ViaService"                   = "s3.${var.region}.amazonaws.com"
            "kms:EncryptionContext:aws:s3:arn" = "arn:${local.partition}:s3:::${local.buckets.models}" # bucket keys: the bucket's ARN
          }
        }
      },
      {
        Sid      = "SessionManager"
        Effect   = "Allow"
        Action   = ["ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"]
        Resource = "*"
      },
      {
        Sid      = "SessionManagerAgent"
        Effect   = "Allow"
        Action   = "ssm:UpdateInstanceInformation"
        Resource = "*"
      },
      {
        # The model key is allowed by its own policy, for attested enclaves. This holds even where that policy gets a mistake.
        Sid       = "ModelKeyOnlyForAnEnclave"
        Effect    = "Deny"
        Action    = local.opening
        Resource  = aws_kms_key.model.arn
        Condition = { Null = { "kms:RecipientAttestation:PCR0" = "true" } }
      },
    ]
  })
}
