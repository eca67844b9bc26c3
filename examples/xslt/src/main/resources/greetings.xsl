<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output method="text"/>
  <xsl:template match="/catalogue">
    <xsl:text>Greetings from </xsl:text>
    <xsl:value-of select="count(book)"/>
    <xsl:text> books, the oldest of them </xsl:text>
    <xsl:for-each select="book">
      <xsl:sort select="@year" data-type="number"/>
      <xsl:sort select="title"/>
      <xsl:if test="position() = 1"><xsl:value-of select="title"/></xsl:if>
    </xsl:for-each>
    <xsl:text>!</xsl:text>
  </xsl:template>
</xsl:stylesheet>
