package com.example.greetings;

import java.nio.file.Files;
import java.util.logging.Logger;
import org.apache.catalina.startup.Tomcat;

public class Application {
    private static final Logger LOG = Logger.getLogger("greetings");

    /** Held here, as the global context holds its resources weakly. */
    private static Door door;

    public static void main(String[] args) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
        tomcat.setPort(8080);
        var context = tomcat.addContext("", null);
        Tomcat.addServlet(context, "greetings", new GreetingsServlet());
        context.addServletMappingDecoded("/", "greetings");
        door = new Door(tomcat.getConnector());
        tomcat.start();
        LOG.info("ready behind " + door);
        tomcat.getServer().await();
    }
}
