# callers -> load balancer -> hosts -> broker, S3, endpoints. No port for shells: Session Manager needs none.
locals {
  relay   = 7443 # host.toml, relay.listen
  control = 9100 # host.toml, control: /readyz for the load balancer

  groups = {
    balancer  = "callers to the relay"
    host      = "hosts with an enclave"
    endpoints = "interface endpoints of AWS services"
  }

  # Each way exists as the egress of one group and the ingress of the other.
  ways = {
    relay   = { from = "balancer", to = "host", port = local.relay }
    health  = { from = "balancer", to = "host", port = local.control }
    service = { from = "host", to = "endpoints", port = 443 }
  }
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:All three are attached, by key: to the load balancer, the launch template and the endpoints.
  for_each    = local.groups
  name        = "${var.base.name}-${each.key}"
  description = each.value
  vpc_id      = var.base.vpc_id
  tags        = { Name = "${var.base.name}-${each.key}" }
}

resource "aws_vpc_security_group_egress_rule" "between" {
  for_each                     = local.ways
  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "between" {
  for_each                     = local.ways
  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "callers" {
  for_each          = var.callers
  security_group_id = aws_security_group.this["balancer"].id
  cidr_ipv4         = each.value
  description       = "gateways"
  ip_protocol       = "tcp"
  from_port         = local.relay
  to_port           = local.relay
}

resource "aws_vpc_security_group_egress_rule" "broker" {
  for_each          = var.broker.cidrs
  security_group_id = aws_security_group.this["host"].id
  cidr_ipv4         = each.value
  description       = "key broker"
  ip_protocol       = "tcp"
  from_port         = var.broker.port
  to_port           = var.broker.port
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  security_group_id = aws_security_group.this["host"].id
  prefix_list_id    = var.base.s3_prefix_list_id
  description       = "S3, through the gateway endpoint"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
