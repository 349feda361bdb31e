from fabrica.cli.main import main

main()
