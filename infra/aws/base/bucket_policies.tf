locals {
  no_plain_text = {
    for name, bucket in local.buckets : name => {
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "s3:*"
      Resource  = ["arn:${local.partition}:s3:::${bucket}", "arn:${local.partition}:s3:::${bucket}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
  }
}

resource "aws_s3_bucket_policy" "models" {
  bucket     = aws_s3_bucket.models.id
  depends_on = [aws_s3_bucket_public_access_block.this]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.no_plain_text.models,
      {
        # Publishers upload from where they are; everybody else reads through this VPC's endpoint or not at all.
        Sid       = "ReadThroughTheEndpoint"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource  = "arn:${local.partition}:s3:::${local.buckets.models}/*"
        Condition = {
          StringNotEquals = { "aws:SourceVpce" = aws_vpc_endpoint.s3.id }
          ArnNotEquals    = { "aws:PrincipalArn" = sort(var.publishers) }
        }
      },
      {
        # What an enclave opens is checked there; this keeps a host from spoiling it for the others.
        Sid       = "PublishersWrite"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
        Resource  = "arn:${local.partition}:s3:::${local.buckets.models}/*"
        Condition = { ArnNotEquals = { "aws:PrincipalArn" = sort(var.publishers) } }
      },
    ]
  })
}

resource "aws_s3_bucket_policy" "logs" {
  bucket     = aws_s3_bucket.logs.id
  depends_on = [aws_s3_bucket_public_access_block.this]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.no_plain_text.logs,
      {
        Sid       = "AccessLogs"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "arn:${local.partition}:s3:::${local.buckets.logs}/s3/*"
        Condition = {
          ArnEquals    = { "aws:SourceArn" = "arn:${local.partition}:s3:::${local.buckets.models}" }
          StringEquals = { "aws:SourceAccount" = local.account }
        }
      },
    ]
  })
}
