# Private subnets only: no internet gateway, no NAT. What hosts reach is S3 (gateway endpoint, free), the fleet's interface endpoints,
# and whatever network the operator peers for callers and the key broker.
resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true # interface endpoints answer under AWS's own names
  enable_dns_support   = true
  tags                 = { Name = var.name }
}

# Nothing uses it; without this it lets everything out.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  for_each                = { for index, zone in var.availability_zones : zone => index }
  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.vpc_cidr, 2, each.value)
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_route_table_association" "private" {
  for_each       = aws_subnet.private
  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]
  tags              = { Name = "${var.name}-s3" }

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "PackagesAndReleases"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:GetObject", "s3:ListBucket"]
        Resource  = ["arn:${local.partition}:s3:::${local.buckets.models}", "arn:${local.partition}:s3:::${local.buckets.models}/*"]
        Condition = { ArnEquals = { "aws:PrincipalArn" = aws_iam_role.host.arn } }
      },
      {
        # Amazon Linux 2023 installs from a bucket of Amazon's in the same region; packages are signed.
        Sid       = "AmazonLinux"
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource  = "arn:${local.partition}:s3:::al2023-repos-${var.region}-de612dc2/*"
      },
    ]
  })
}
