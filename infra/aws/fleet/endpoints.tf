# Session Manager without internet; KMS where enclaves ask it for keys. Each costs by the hour and zone.
locals {
  endpoints = toset(concat(["ssm", "ssmmessages"], var.kms_release ? ["kms"] : []))

  endpoint_actions = {
    ssm         = { Action = "ssm:UpdateInstanceInformation", Resource = "*" }
    ssmmessages = { Action = "ssmmessages:*", Resource = "*" }
    kms         = { Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = var.base.model_key_arn }
  }
}

resource "aws_vpc_endpoint" "service" {
  for_each            = local.endpoints
  vpc_id              = var.base.vpc_id
  service_name        = "com.amazonaws.${var.base.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.base.subnet_ids
  security_group_ids  = [aws_security_group.this["endpoints"].id]
  tags                = { Name = "${var.base.name}-${each.key}" }

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [merge(local.endpoint_actions[each.key], {
      Sid       = "OurHosts"
      Effect    = "Allow"
      Principal = "*"
      Condition = { ArnEquals = { "aws:PrincipalArn" = var.base.role_arn } }
    })]
  })
}
