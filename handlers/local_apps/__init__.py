"""The Local Apps API: operations of the surface that official SDKs call."""
