# Layer 4 only: TLS ends in the enclave, and a balancer that ended it would make every caller's checks fail.
resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91:Access logs exist for TLS listeners only, and this one has none; the VPC's flow logs have the connections.
  #checkov:skip=CKV_AWS_150:scripts/aws-down takes fleets down after showing what goes; there is nothing to lose in one.
  #checkov:skip=CKV2_AWS_20:Not HTTP: nothing to redirect.
  name                             = var.base.name
  load_balancer_type               = "network"
  internal                         = true
  subnets                          = var.base.subnet_ids
  security_groups                  = [aws_security_group.this["balancer"].id]
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_target_group" "relay" {
  #checkov:skip=CKV_AWS_378:The check is the host's plain /readyz on the private control port; nothing else is served there but metrics.
  name                   = "${var.base.name}-relay"
  vpc_id                 = var.base.vpc_id
  port                   = local.relay
  protocol               = "TCP"
  target_type            = "instance"
  deregistration_delay   = 60 # gateways attest a new connection within seconds
  connection_termination = true

  health_check {
    protocol            = "HTTP"
    port                = local.control
    path                = "/readyz" # 200: identity, key and model in place; 503: draining, not ready, no enclave
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "relay" {
  #checkov:skip=CKV_AWS_2:TLS 1.3 passes through, and ends in the enclave.
  #checkov:skip=CKV_AWS_103:The same.
  load_balancer_arn = aws_lb.this.arn
  port              = local.relay
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.relay.arn
  }
}
