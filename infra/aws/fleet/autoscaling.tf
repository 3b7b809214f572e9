resource "aws_autoscaling_group" "this" {
  name                      = var.base.name
  min_size                  = var.fleet.min
  max_size                  = var.fleet.max
  vpc_zone_identifier       = var.base.subnet_ids
  target_group_arns         = [aws_lb_target_group.relay.arn]
  health_check_type         = "ELB" # /readyz: a host whose enclave is gone is replaced
  health_check_grace_period = var.boot_seconds
  default_instance_warmup   = 30
  wait_for_capacity_timeout = "${var.boot_seconds + 600}s"
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupTotalInstances"]

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  # A new release or image replaces hosts one after the other, and goes back by itself if the new ones are not ready.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = 30
      auto_rollback          = true
    }
  }

  tag {
    key                 = "Name"
    value               = "${var.base.name}-host"
    propagate_at_launch = true
  }

  depends_on = [aws_lb_listener.relay, aws_vpc_endpoint.service]
}

# The instance's own processor metrics do not see the enclave's; connected gateways are what there is to count.
resource "aws_autoscaling_policy" "flows" {
  count                  = var.fleet.flows_per_host > 0 ? 1 : 0
  name                   = "${var.base.name}-flows"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.fleet.flows_per_host

    customized_metric_specification {
      metrics {
        id          = "per_host"
        expression  = "flows / hosts"
        return_data = true
      }

      dynamic "metrics" {
        for_each = {
          flows = { namespace = "AWS/NetworkELB", name = "ActiveFlowCount", dimension = "LoadBalancer", value = aws_lb.this.arn_suffix }
          hosts = { namespace = "AWS/AutoScaling", name = "GroupInServiceInstances", dimension = "AutoScalingGroupName", value = aws_autoscaling_group.this.name }
        }

        content {
          id          = metrics.key
          return_data = false

          metric_stat {
            stat = "Average"

            metric {
              namespace   = metrics.value.namespace
              metric_name = metrics.value.name

              dimensions {
                name  = metrics.value.dimension
                value = metrics.value.value
              }
            }
          }
        }
      }
    }
  }
}
