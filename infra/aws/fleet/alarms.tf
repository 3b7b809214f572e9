locals {
  alarms = {
    hosts-too-few   = { metric = "HealthyHostCount", comparison = "LessThanThreshold", threshold = var.fleet.min, minutes = 5, text = "fewer ready hosts than the minimum" }
    hosts-not-ready = { metric = "UnHealthyHostCount", comparison = "GreaterThanThreshold", threshold = 0, minutes = ceil(var.boot_seconds / 60) + 5, text = "a host stays unready longer than a boot takes: look at its /readyz, the broker's release log, the system log" }
  }
}

resource "aws_cloudwatch_metric_alarm" "hosts" {
  for_each            = local.alarms
  alarm_name          = "${var.base.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AWS/NetworkELB"
  metric_name         = each.value.metric
  statistic           = each.value.comparison == "LessThanThreshold" ? "Minimum" : "Maximum"
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topics
  ok_actions          = var.alarm_topics

  dimensions = {
    LoadBalancer = aws_lb.this.arn_suffix
    TargetGroup  = aws_lb_target_group.relay.arn_suffix
  }
}
