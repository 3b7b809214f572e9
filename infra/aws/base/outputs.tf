# `scripts/aws-up` hands this to the fleet as it is.
output "base" {
  description = "What a fleet needs to know."
  value = {
    name              = var.name
    region            = var.region
    vpc_id            = aws_vpc.this.id
    subnet_ids        = [for zone in var.availability_zones : aws_subnet.private[zone].id]
    s3_prefix_list_id = aws_vpc_endpoint.s3.prefix_list_id
    models_bucket     = aws_s3_bucket.models.id
    instance_profile  = aws_iam_instance_profile.host.name
    role_arn          = aws_iam_role.host.arn
    model_key_arn     = aws_kms_key.model.arn
  }
}

output "route_table_id" {
  description = "Add routes to callers and key broker (peering, transit gateway) here."
  value       = aws_route_table.private.id
}
